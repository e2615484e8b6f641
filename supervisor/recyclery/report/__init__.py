"""What people are shown: the commands' output, made from the governor's documents."""
