# For models of _base_/models/stmixer-n-maps.py.
_base_ = './default_runtime.py'

custom_imports = dict(
    imports=[
        'stmixer_mm.projects.streaming',
        'stmixer_mm.projects.denoising',
        'stmixer_mm.projects.action_maps',
    ]
)
# The times that denoising tells temporal queries, which ActionMapDecoder has none of,
# get no gradient.
find_unused_parameters = True
