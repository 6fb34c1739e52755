"""A user's own archive, looked through and declared as a data set (`vividmed ingest`).

A table of studies stays where it is, and so do the images: what is written is a declaration of the
family `table`. A folder of DICOM studies gets a table beside its declaration, made from the
headers, since no run should read them all again.
"""
