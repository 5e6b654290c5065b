"""Who a client is, and how much it may ask for: keys, addresses, and their limits on requests and tokens."""
