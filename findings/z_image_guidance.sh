#!/usr/bin/env bash
# diffusers 0.42.1: ZImagePipeline is guided from guidance_scale 0 on, though its text says from 1 on; 1 is already twice the prompt's weight.
#
# The docstring says that guidance is enabled by guidance_scale > 1, as in nearly all pipelines, where 1 means none. The code guides above 0 and
# adds the scale to the prompt's own prediction: pos + scale (pos - neg), which elsewhere would be written with 1 + scale. So whoever asks for
# "no guidance" by 1 gets the network run twice and another image; whoever moves a scale over from another pipeline is one too high.
# Seen with: diffusers 0.42.1, torch 2.14.1, Python 3.11.
# Output seen:
#   guidance 0: the network gets 1 image a call
#   guidance 1: the network gets 2 images a call
#   the docstring says: guidance_scale > 1
#   image of guidance 1 is that of guidance 0: False
# The script fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 diffusers==0.42.1 transformers==5.23.0
cat > "$folder/try.py" <<'PYTHON'
import re

import numpy as np
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, ZImagePipeline, ZImageTransformer2DModel

torch.manual_seed(0)
network = ZImageTransformer2DModel(in_channels=4, dim=32, n_layers=1, n_refiner_layers=1, n_heads=2, n_kv_heads=2, cap_feat_dim=16,
                                   axes_dims=[4, 6, 6], axes_lens=[256, 64, 64])
for parameter in network.parameters():
    if parameter.ndim > 1:
        torch.nn.init.normal_(parameter, std=0.05)
vae = AutoencoderKL(block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
                    norm_num_groups=4, latent_channels=4, shift_factor=0.0)
pipe = ZImagePipeline(FlowMatchEulerDiscreteScheduler(), vae, None, None, network.eval())
pipe.set_progress_bar_config(disable=True)
text, other = torch.randn(2, 5, 16)
rows = []
network.register_forward_pre_hook(lambda module, args: rows.append(len(args[0])))


def image(scale):
    rows.clear()
    made = pipe(prompt_embeds=[text], negative_prompt_embeds=[other], height=64, width=64, num_inference_steps=2, guidance_scale=scale,
                generator=torch.Generator().manual_seed(0), output_type="np").images
    print(f"guidance {scale:g}: the network gets {rows[0]} image{'s' * (rows[0] > 1)} a call")
    return rows[0], made


(none, plain), (one, guided) = image(0.0), image(1.0)
said = re.search(r"guidance_scale\s*>\s*\d", ZImagePipeline.__call__.__doc__)[0]
said = " ".join(said.split())
print(f"the docstring says: {said}")
same = bool(np.allclose(plain, guided))
print(f"image of guidance 1 is that of guidance 0: {same}")
assert (none, one, said, same) == (1, 2, "guidance_scale > 1", False), "this has changed"
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
