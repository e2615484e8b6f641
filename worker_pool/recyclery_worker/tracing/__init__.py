"""A pool child that traces allocations for a while: imported only in a child that was told to."""
