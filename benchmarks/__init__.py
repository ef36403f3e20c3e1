"""What is fast? Ratios against something measured in the same run, on stores and services of their own; and does it add up?"""
