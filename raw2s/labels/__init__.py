"""What a label is, without Ray: the weak-label table and its file, what is made of it, label files and crowd methods."""
