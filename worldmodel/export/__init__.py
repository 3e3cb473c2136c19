"""Exports: the world model as one page that runs in a browser, or as ONNX files."""

from worldmodel.export.target import export

__all__ = ["export"]
