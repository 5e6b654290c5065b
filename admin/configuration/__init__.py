"""Where the configuration comes from, and what is said of it when it is wrong."""
