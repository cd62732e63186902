"""What a rank's memory holds, and when: predicted without allocating it, and measured in fresh processes."""
