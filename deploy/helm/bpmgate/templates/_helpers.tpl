{{/* The release's name, with the chart's behind it unless it has it already. */}}
{{- define "bpmgate.name" -}}
{{- $chart := default .Chart.Name .Values.nameOverride -}}
{{- ternary .Release.Name (printf "%s-%s" .Release.Name $chart) (contains $chart .Release.Name) | trunc 56 | trimSuffix "-" -}}
{{- end -}}

{{/* What finds the gateway's pods; it may never change. */}}
{{- define "bpmgate.selector" -}}
app.kubernetes.io/name: {{ default .Chart.Name .Values.nameOverride }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end -}}

{{- define "bpmgate.labels" -}}
{{ include "bpmgate.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end -}}

{{/* The Secret whose keys are files; empty where there is none. */}}
{{- define "bpmgate.secret" -}}
{{- if .Values.secret.existing -}}
{{ .Values.secret.existing }}
{{- else if .Values.secret.files -}}
{{ include "bpmgate.name" . }}
{{- end -}}
{{- end -}}
