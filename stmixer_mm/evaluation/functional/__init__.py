"""Frame mAP, video mAP and types of error as functions of arrays."""
