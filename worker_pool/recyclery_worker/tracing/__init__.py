"""Tracing of allocations in a pool child; imported only in a child that is asked to trace."""
