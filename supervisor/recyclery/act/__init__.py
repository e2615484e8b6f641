"""What is done: one module per action, each bounded in time and telling what came of it."""
