{{/*
Rights in the namespaces that the operator works in: a ClusterRole, or a Role in each of watchNamespaces.
Every verb is one that the operator's code uses; none is a wildcard. Owner references block no
deletion, so rights on finalizers are not needed.
*/}}
{{- define "triton-operator.rules" -}}
# What users write: followed, never changed.
- apiGroups: [triton-operator.io]
  resources: [inferencemodels, modelrepositories, tritonservers]
  verbs: [list, watch]
# Their status and that of engines: one write at the end of a reconcile.
- apiGroups: [triton-operator.io]
  resources: [engines/status, inferencemodels/status, modelrepositories/status, tritonservers/status]
  verbs: [patch]
# The entries of the store: made for versions of models, moved to another source (get, patch), deleted
# when nothing has used them for long enough.
- apiGroups: [triton-operator.io]
  resources: [engines]
  verbs: [get, list, watch, create, patch, delete]
# Triton's and the keeper's pods. Deleting them is left to the garbage collector.
- apiGroups: [apps]
  resources: [deployments]
  verbs: [get, list, watch, create, patch]
# What stands in front of Triton's pods; one whose name the spec gave up is deleted.
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch, delete]
# One Job per attempt at a build; a Job is never changed. get: to tell a foreign Job of the name.
- apiGroups: [batch]
  resources: [jobs]
  verbs: [get, list, watch, create, delete]
# How many of Triton's pods drains of nodes may take at once. Deleting is left to the garbage collector.
- apiGroups: [policy]
  resources: [poddisruptionbudgets]
  verbs: [get, list, watch, create, patch]
# Which pods run where, and why one does not. patch: one label of Triton's pods, by which Services leave
# out a pod that lacks a model which others serve.
- apiGroups: [""]
  resources: [pods]
  verbs: [list, watch, patch]
# A repository's volume: the claim that it names, or one that is made for it and never deleted.
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, create]
# Keys of Triton's control API and of the keeper, for their pods. They are made and never read.
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
# What happened to an object, for `kubectl describe`.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create]
{{- end -}}

{{/* Rights in the operator's own namespace, for the process itself. */}}
{{- define "triton-operator.ownRules" -}}
# The only Secret that is read: all other keys derive from it.
- apiGroups: [""]
  resources: [secrets]
  resourceNames: [triton-operator-master-key]
  verbs: [get]
# The first start makes it. The name of what is created can't be said in a rule.
- apiGroups: [""]
  resources: [secrets]
  verbs: [create]
# One writer: the holder renews the Lease.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  resourceNames: [triton-operator]
  verbs: [get, update]
# The first start makes it.
- apiGroups: [coordination.k8s.io]
  resources: [leases]
  verbs: [create]
# Its own Deployment owns Lease and master key, so that they go when the release goes.
- apiGroups: [apps]
  resources: [deployments]
  resourceNames: [{{ include "triton-operator.fullname" . | quote }}]
  verbs: [get]
{{- end -}}

{{/* Rights on the cluster, whichever namespaces the operator works in. */}}
{{- define "triton-operator.clusterRules" -}}
# Its UID is what volumes call this cluster.
- apiGroups: [""]
  resources: [namespaces]
  resourceNames: [kube-system]
  verbs: [get]
{{- end -}}

{{/* Rights on the cluster of an operator that works everywhere. */}}
{{- define "triton-operator.nodeRules" -}}
# Labels, taints and GPUs of nodes, which tell what GPU a TritonServer has.
- apiGroups: [""]
  resources: [nodes]
  verbs: [list, watch]
{{- end -}}

{{/* The subject of all bindings. */}}
{{- define "triton-operator.subjects" -}}
- kind: ServiceAccount
  name: {{ include "triton-operator.serviceAccountName" . | quote }}
  namespace: {{ .Release.Namespace | quote }}
{{- end -}}
