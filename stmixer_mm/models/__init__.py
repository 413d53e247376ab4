"""Whatever a config can name: to import a module registers its classes."""

# ruff: noqa: F401
import stmixer_mm.models.backbones.framewise
import stmixer_mm.models.backbones.non_local
import stmixer_mm.models.backbones.slowfast_pyramid
import stmixer_mm.models.backbones.taps
import stmixer_mm.models.backbones.timesformer
import stmixer_mm.models.backbones.uniformer_v2
import stmixer_mm.models.backbones.vit
import stmixer_mm.models.data_preprocessor
import stmixer_mm.models.decoder.deformable_decoder
import stmixer_mm.models.decoder.stmixer_decoder
import stmixer_mm.models.detectors.roi_detector
import stmixer_mm.models.detectors.still_image
import stmixer_mm.models.detectors.stmixer
import stmixer_mm.models.heads.denoising
import stmixer_mm.models.heads.stmixer_head
import stmixer_mm.models.initial_boxes.proposal_boxes
import stmixer_mm.models.initial_boxes.simple_boxes
import stmixer_mm.models.losses.asymmetric
import stmixer_mm.models.losses.class_balanced
import stmixer_mm.models.necks.bifpn3d
import stmixer_mm.models.necks.fpn3d
import stmixer_mm.models.necks.framewise
import stmixer_mm.models.necks.pafpn3d
import stmixer_mm.models.necks.projection
import stmixer_mm.models.necks.resample_time
import stmixer_mm.models.necks.vit_pyramid
