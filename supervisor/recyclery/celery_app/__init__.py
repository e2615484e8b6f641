"""What imports the app: its routes, and what dead workers left. Each runs in a process of its own."""
