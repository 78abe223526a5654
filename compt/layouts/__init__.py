"""The built-in layouts, which are registered by entry points like anyone's."""
