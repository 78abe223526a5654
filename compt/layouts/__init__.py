"""Built-in layouts, registered by entry points like anyone's."""
