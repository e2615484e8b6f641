"""`recyclery tune`: the user's own tasks, run at several levels on a private queue, tell which level suits."""
