"""A command in a cage the size of a container: a cgroup with a limit, namespaces, and a guard that ends it."""
