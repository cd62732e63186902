"""Processes that train together: launchers, what ranks agree on, signals, and ranks that die or hang."""
