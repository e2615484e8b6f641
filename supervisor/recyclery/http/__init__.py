"""What the governor serves over HTTP: probes, metrics, and a read-only page."""
