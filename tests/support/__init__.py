"""What the tests of several files share: servers, clients, networks, and words to speak of them.

Tests import it as ``support``: pytest puts the folder ``tests`` on the path, see its README.
"""
