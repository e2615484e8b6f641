"""The protocol between `recyclery` commands and the governor: requests, answers and the status document."""
