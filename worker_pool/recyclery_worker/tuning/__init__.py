"""What a worker does differently while `recyclery tune` measures it: it is isolated, and logs each task."""
