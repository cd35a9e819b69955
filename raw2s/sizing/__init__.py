"""How much memory and work a model takes, from its config alone: no weights, and neither Ray nor DeepSpeed nor pydantic.

model.py        parameters, on the meta device          cards.py     what a GPU holds and how fast it is
activations.py  what a layer leaves for its backward    states.py    weights, gradients and optimizer under ZeRO
training.py     the peak of a training step             decoding.py  beams with their cache; scoring
"""
