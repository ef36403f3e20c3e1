"""Ids, units, places, time, chance, errors and settings: the words that every package speaks. It imports nothing of ours."""
