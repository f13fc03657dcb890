"""`python -m cutnn` prints versions, devices and the reason why a GPU is or is not used."""

from cutnn.device import show_config

show_config()
