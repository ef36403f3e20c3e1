"""How long does it take? Travel times, distances and routes, by one protocol (`model.Router`) and several routers behind it."""
