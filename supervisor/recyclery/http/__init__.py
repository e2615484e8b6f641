"""What the governor serves over HTTP: probes, metrics, and a page to look at and not to act on."""
