"""PyTorchJobs, in five rooms. Each knows those before it, and none after; `launch`, `preflight`, `pod` not each other.

api        the API server: a client, list and watch, this process's own pod and its Workflow
job        one job: spec, pod template, patch; its state, the failure classes, the files that launcher and pods share
launch     the train backend: creates or adopts the job, watches it, tries again, deletes what is done with
preflight  `steerlm doctor --kubernetes`: permissions, quotas, controllers, dry runs, before anything is started
pod        what runs in the job's pods; of the rooms above it knows `job.files` alone
"""
