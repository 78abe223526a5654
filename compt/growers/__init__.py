"""Built-in growers, one a file, registered by entry points like anyone's."""
