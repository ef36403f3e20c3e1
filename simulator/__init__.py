"""The city that closes the loop: riders' requests, drivers' starts and movement, and the live load made of them."""
