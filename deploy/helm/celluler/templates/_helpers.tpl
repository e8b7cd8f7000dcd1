{{/* The names of everything. */}}
{{- define "celluler.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 52 | trimSuffix "-" }}
{{- end }}

{{/* A pod's name has a number more, and a label has 63 characters. */}}
{{- define "celluler.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- $name := include "celluler.name" . }}
{{- if contains $name .Release.Name }}
{{- .Release.Name | trunc 52 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name $name | trunc 52 | trimSuffix "-" }}
{{- end }}
{{- end }}
{{- end }}

{{/* Where pods find each other. */}}
{{- define "celluler.peers" -}}
{{- printf "%s-peers" (include "celluler.fullname" .) }}
{{- end }}

{{- define "celluler.selectorLabels" -}}
app.kubernetes.io/name: {{ include "celluler.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "celluler.labels" -}}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | trunc 63 | trimSuffix "-" }}
{{ include "celluler.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}

{{- define "celluler.image" -}}
{{- printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) }}
{{- end }}

{{/*
The settings of a cell. The addresses are the chart's, the rest is the user's; a cell's name comes from the pod.
TOML takes numbers, truth values, strings and lists as JSON writes them.
*/}}
{{- define "celluler.toml" -}}
{{- $listen := list "/ip4/0.0.0.0/tcp/7401" "/ip4/0.0.0.0/udp/7401/quic-v1" "/ip4/0.0.0.0/tcp/7402/ws" }}
{{- $own := dict "http" (dict "host" "0.0.0.0" "port" 7400) "network" (dict "listen" $listen) }}
{{- $all := mergeOverwrite (deepCopy .Values.settings) $own }}
{{- range $section, $keys := $all }}
[{{ $section }}]
{{- range $key, $value := $keys }}
{{ $key }} = {{ $value | mustToRawJson }}
{{- end }}
{{ end }}
{{- end }}

{{/* What the program and its preparation know of themselves. */}}
{{- define "celluler.env" -}}
- name: POD_NAME
  valueFrom:
    fieldRef:
      fieldPath: metadata.name
- name: CELL__CELL__NAME
  value: $(POD_NAME)
{{- with .Values.passphrase }}
{{- if .secret }}
- name: CELL_PASSPHRASE
  valueFrom:
    secretKeyRef:
      name: {{ .secret }}
      key: {{ .key }}
{{- end }}
{{- end }}
{{- with .Values.extraEnv }}
{{ toYaml . }}
{{- end }}
{{- end }}
