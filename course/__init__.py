"""What the notebooks need and the library does not: their runner, their widgets, and small worlds to look into.

Part of the checkout, as `experiments` is, not of what pip installs; it takes from `elf` and never from `experiments`.
"""
