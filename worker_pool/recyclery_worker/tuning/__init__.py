"""What a worker does differently while `recyclery tune` measures it: it keeps apart, and tells of each task."""
