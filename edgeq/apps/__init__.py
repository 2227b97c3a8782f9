"""What the libraries in apps load: a model's files, laid out, named and described for each of them.

``layouts/`` has one file per consumer. ``pack`` makes a bundle of a written model, ``lint`` says what of a folder
its consumer would not load, ``manifest`` is the description with hashes that lies in every bundle.
"""
