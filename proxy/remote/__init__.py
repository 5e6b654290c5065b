"""Model servers elsewhere: connections to them, requests over those, and checks of their health."""
