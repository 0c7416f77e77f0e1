"""Networks: backbones and heads for tiles and volumes, pretrained weights."""
