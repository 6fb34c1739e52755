"""VividMed: a vision language model that points at what it says, on radiographs and CT volumes.

CogVLM (a vision transformer and a Llama decoder with visual experts) with a promptable localisation
network in the manner of SAM, for 2D and 3D images of any size: "VividMed: Vision Language Model
with Versatile Visual Grounding for Medicine", NAACL 2025.
"""
