"""Methods for one picture whose blur is in no family that a network was trained on.

Each fits networks to the picture itself, for minutes, in torch: nothing here is part of the
real-time runtime, which knows nothing of this package. One module (or package) for each method;
`fitting` is what they have in common.
"""
