"""Built-in transfers, registered by entry points like anyone's."""
