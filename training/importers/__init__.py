"""Official checkpoints of published networks, as networks of `training.models`.

One module a family says under which names its files keep their tensors; `layout` reads and translates them, `networks`
says which are known.
"""
