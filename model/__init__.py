"""VividMed: a vision-language model with visual grounding for radiographs and CT volumes.

CogVLM (a vision transformer and a Llama decoder with visual experts) with a SAM-style promptable
localization network, for 2D and 3D images of any size: "VividMed: Vision Language Model
with Versatile Visual Grounding for Medicine", NAACL 2025.
"""
