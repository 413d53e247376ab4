custom_imports = dict(imports=['stmixer_mm'], allow_failed_imports=False)
default_scope = 'mmaction'

default_hooks = dict(
    runtime_info=dict(type='RuntimeInfoHook'),
    timer=dict(type='IterTimerHook'),
    logger=dict(type='LoggerHook', interval=20, ignore_last=False),
    param_scheduler=dict(type='ParamSchedulerHook'),
    # Keeps the earlier checkpoint until the next one is whole, and the checkpoints of
    # an earlier run in the work dir.
    checkpoint=dict(
        type='SafeCheckpointHook', interval=1, max_keep_ckpts=3, save_best='auto'
    ),
    # A resumed training ends with the weights of an unbroken one, also with augmentation.
    exact_resume=dict(type='ExactResumeHook'),
    sampler_seed=dict(type='DistSamplerSeedHook'),
    sync_buffers=dict(type='SyncBuffersHook'),
    # Refuses a checkpoint of another architecture; for fine-tuning, `allow` takes
    # regular expressions of the parameters that may differ.
    check_checkpoint=dict(type='CheckCheckpointHook', allow=[]),
    # Refuses a model that does not fit the classes or the clips of the data.
    check_model=dict(type='CheckModelHook'),
    # Draws when the test tool is given --show-dir.
    visualization=dict(type='KeyframeVisualizationHook', enable=False, interval=1),
)

env_cfg = dict(
    cudnn_benchmark=False,
    mp_cfg=dict(mp_start_method='fork', opencv_num_threads=0),
    dist_cfg=dict(backend='nccl'),
)

# Losses are averaged over this many iterations; the log shows the time to go (eta) and
# a sum for each earlier stage (the visualizer's back ends get all terms).
log_processor = dict(type='StageLogProcessor', window_size=20, by_epoch=True)
log_level = 'INFO'

vis_backends = [dict(type='LocalVisBackend')]
visualizer = dict(type='STADVisualizer', vis_backends=vis_backends)

load_from = None
resume = False
