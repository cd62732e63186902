"""Admin and GradInit beside SIBERT: what depth amplifies, and which starts need no warm-up."""
