{{/* The chart's name, as the label app.kubernetes.io/name has it. */}}
{{- define "triton-operator.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 55 | trimSuffix "-" -}}
{{- end -}}

{{/* Name of the release's objects. At most 55 characters: suffixes such as -metrics fit into 63. */}}
{{- define "triton-operator.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 55 | trimSuffix "-" -}}
{{- else if contains $name .Release.Name -}}
{{- .Release.Name | replace "." "-" | trunc 55 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | replace "." "-" | trunc 55 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}

{{/*
Name of objects outside the release's namespace. It names that namespace too, so that
releases of one name in several namespaces don't meet.
*/}}
{{- define "triton-operator.globalName" -}}
{{- $name := printf "%s-%s" (include "triton-operator.fullname" .) .Release.Namespace -}}
{{- if gt (len $name) 63 -}}
{{- $name = printf "%s-%s" ($name | trunc 54 | trimSuffix "-") (sha256sum $name | trunc 8) -}}
{{- end -}}
{{- $name -}}
{{- end -}}

{{- define "triton-operator.serviceAccountName" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "triton-operator.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{- define "triton-operator.selectorLabels" -}}
app.kubernetes.io/name: {{ include "triton-operator.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
{{- end -}}

{{/*
Labels of the release's objects. The operator takes app.kubernetes.io/managed-by: triton-operator for its
own mark, so that label must stay Helm's.
*/}}
{{- define "triton-operator.labels" -}}
{{ include "triton-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: triton-operator
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" | quote }}
{{- end -}}

{{/* An image's reference; takes a list of the values of the image and the root. */}}
{{- define "triton-operator.image" -}}
{{- $image := index . 0 -}}
{{- $root := index . 1 -}}
{{- printf "%s:%s" $image.repository (default $root.Chart.AppVersion $image.tag) -}}
{{- with $image.digest }}@{{ . }}{{ end -}}
{{- end -}}

{{/* The names in a list of `- name: …`, separated by commas. */}}
{{- define "triton-operator.names" -}}
{{- $names := list -}}
{{- range . -}}{{- $names = append $names .name -}}{{- end -}}
{{- join "," $names -}}
{{- end -}}

{{/*
Refuses resources where the operator doesn't look. Takes a list of an entry of the values, where it
stands, and the root; returns the namespace.
*/}}
{{- define "triton-operator.namespaceOf" -}}
{{- $entry := index . 0 -}}
{{- $place := index . 1 -}}
{{- $root := index . 2 -}}
{{- $namespace := default $root.Release.Namespace $entry.namespace -}}
{{- if and $root.Values.watchNamespaces (not (has $namespace $root.Values.watchNamespaces)) -}}
{{- fail (printf "%s: %s would be in namespace %s, where the operator does not look: add it to watchNamespaces, or set the entry's namespace to one of %s" $place $entry.name $namespace (join ", " $root.Values.watchNamespaces)) -}}
{{- end -}}
{{- $namespace -}}
{{- end -}}
