"""A second module, whose function has the name of one in toy_rewards."""


def constant(completions: list[str], **columns: list) -> list[float]:
    """Ten for everything."""
    return [10.0] * len(completions)
