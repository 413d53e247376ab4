_base_ = './adamw_12e.py'

optim_wrapper = dict(
    optimizer=dict(lr=1e-5),
    paramwise_cfg=dict(
        # One-dimensional parameters of the transformer; those behind it do decay.
        custom_keys={
            '_delete_': True,
            'backbone.patch_embed.projection.bias': dict(decay_mult=0.0),
            'backbone.norm.': dict(decay_mult=0.0),
            '.norm1.': dict(decay_mult=0.0),
            '.norm2.': dict(decay_mult=0.0),
            '.attn.q_bias': dict(decay_mult=0.0),
            '.attn.v_bias': dict(decay_mult=0.0),
            '.attn.proj.bias': dict(decay_mult=0.0),
            '.mlp.layers.0.0.bias': dict(decay_mult=0.0),
            '.mlp.layers.1.bias': dict(decay_mult=0.0),
        },
    ),
)
auto_scale_lr = dict(base_batch_size=8)
