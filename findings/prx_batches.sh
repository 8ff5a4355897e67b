#!/usr/bin/env bash
# diffusers 0.42.1: PRXPipeline with guidance takes one prompt. With two it ends in a RuntimeError about shapes.
#
# With guidance the pipeline doubles the latents but repeats the timestep exactly twice, so a batch of two prompts calls the network with
# four latents and two timesteps; the modulation of its blocks cannot be broadcast. Without guidance, one timestep is broadcast and all is well.
# Seen with: diffusers 0.42.1, transformers 5.23.0, torch 2.14.1, Python 3.11.
# Output seen:
#   one prompt, guidance 4: (1, 32, 32, 3)
#   two prompts, guidance 1: (2, 32, 32, 3)
#   two prompts, guidance 4: RuntimeError
# The script fails when that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install -q torch==2.14.1 torchvision==0.29.1 diffusers==0.42.1 transformers==5.23.0 ftfy beautifulsoup4
cat > "$folder/try.py" <<'PYTHON'
import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler, PRXPipeline, PRXTransformer2DModel
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

torch.manual_seed(0)
backend = Tokenizer(models.WordLevel({"<pad>": 0, "<unk>": 1, "owl": 2}, unk_token="<unk>"))
backend.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="<pad>", unk_token="<unk>", model_max_length=8)
encoder = CLIPTextModel(CLIPTextConfig(vocab_size=3, hidden_size=32, intermediate_size=32, num_hidden_layers=1, num_attention_heads=2,
                                       max_position_embeddings=8, eos_token_id=0))
vae = AutoencoderKL(block_out_channels=(8, 8), down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
                    norm_num_groups=4, latent_channels=4, shift_factor=0.0)
network = PRXTransformer2DModel(in_channels=4, context_in_dim=32, hidden_size=32, num_heads=2, depth=1, axes_dim=[8, 8])
pipe = PRXPipeline(network, FlowMatchEulerDiscreteScheduler(), encoder, tokenizer, vae, default_sample_size=32)
pipe.set_progress_bar_config(disable=True)


def shape(prompts, guidance):
    try:
        call = pipe(prompts, height=32, width=32, num_inference_steps=2, guidance_scale=guidance, output_type="np", use_resolution_binning=False)
    except RuntimeError as error:
        return type(error).__name__
    return call.images.shape


seen = [("one prompt, guidance 4", shape("owl", 4.0)), ("two prompts, guidance 1", shape(["owl", "owl"], 1.0)),
        ("two prompts, guidance 4", shape(["owl", "owl"], 4.0))]
for name, value in seen:
    print(f"{name}: {value}")
assert [value for _, value in seen] == [(1, 32, 32, 3), (2, 32, 32, 3), "RuntimeError"], "this has changed"
PYTHON
"$folder/venv/bin/python" "$folder/try.py"
