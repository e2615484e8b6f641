"""What `recyclery tune` found, shown: a table, JSON, a page; its progress; two runs side by side."""
