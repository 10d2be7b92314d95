{{/* Names are fixed: a cluster has one Portolan, since a node has one CNI configuration. */}}

{{- define "portolan.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{/* What selects the Pods of a part: {{ include "portolan.selector" "agent" }} */}}
{{- define "portolan.selector" -}}
app.kubernetes.io/name: portolan
app.kubernetes.io/component: {{ . }}
{{- end }}

{{/* The labels of an object of a part: {{ include "portolan.labels" (list . "agent") }} */}}
{{- define "portolan.labels" -}}
{{- $ := index . 0 -}}
{{ include "portolan.selector" (index . 1) }}
app.kubernetes.io/instance: {{ $.Release.Name }}
app.kubernetes.io/version: {{ $.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $.Chart.Name $.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Of every container of ours; what a part may more is added there, with the reason. */}}
{{- define "portolan.restricted" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
{{- end }}

{{/* Where kubelet asks for what listens at an address of the node: {{ include "portolan.probeHost" "0.0.0.0:10256" }} */}}
{{- define "portolan.probeHost" -}}
{{- regexReplaceAll ":[0-9]+$" . "" | trimAll "[]" | replace "0.0.0.0" "127.0.0.1" | quote }}
{{- end }}

{{/* Where the proxy's health is: beside kube-proxy, which has port 10256, another one. */}}
{{- define "portolan.proxyHealthz" -}}
{{- .Values.proxy.healthzBindAddress | default (ternary "0.0.0.0:10085" "0.0.0.0:10256" (ne .Values.proxy.serviceProxyName "")) }}
{{- end }}

{{- define "portolan.logArgs" -}}
- --log-level={{ .Values.log.level }}
- --log-format={{ .Values.log.format }}
{{- end }}

{{/* What the agent needs of its node, and the cleanup that undoes it. */}}
{{- define "portolan.nodeMounts" -}}
# The plugin asks here, the holder is reached here, and what containers are told is mounted from here.
- name: run
  mountPath: /run/portolan
# The journal: which Pod has which ports.
- name: data
  mountPath: /var/lib/portolan
# Whether the network namespaces of Pods are still there. Both names, since runtimes say both.
- name: netns
  mountPath: /run/netns
  mountPropagation: HostToContainer
  readOnly: true
- name: netns
  mountPath: /var/run/netns
  mountPropagation: HostToContainer
  readOnly: true
# The plugin itself, and its place in the chain.
- name: cni-bin
  mountPath: {{ .Values.cni.binDir }}
- name: cni-conf
  mountPath: {{ .Values.cni.confDir }}
# The one setting of the kernel that is changed. /proc/sys is read-only in a container that is not privileged.
- name: reserved-ports
  mountPath: /host/ip_local_reserved_ports
{{- if .Values.nri.enabled }}
- name: nri
  mountPath: {{ .Values.nri.dir }}
{{- end }}
{{- end }}

{{- define "portolan.nodeVolumes" -}}
- name: run
  hostPath:
    path: /run/portolan
    type: DirectoryOrCreate
- name: data
  hostPath:
    path: /var/lib/portolan
    type: DirectoryOrCreate
- name: netns
  hostPath:
    path: /run/netns
    type: DirectoryOrCreate
- name: cni-bin
  hostPath:
    path: {{ .Values.cni.binDir }}
    type: DirectoryOrCreate
- name: cni-conf
  hostPath:
    path: {{ .Values.cni.confDir }}
    type: DirectoryOrCreate
- name: reserved-ports
  hostPath:
    path: /proc/sys/net/ipv4/ip_local_reserved_ports
    type: File
{{- if .Values.nri.enabled }}
- name: nri
  hostPath:
    path: {{ .Values.nri.dir }}
    type: DirectoryOrCreate
{{- end }}
{{- end }}

{{/* The flags by which agent and cleanup find these. */}}
{{- define "portolan.nodeArgs" -}}
- --holder-socket=/run/portolan/holder.sock
- --cni-bin-dir={{ .Values.cni.binDir }}
- --cni-conf-dir={{ .Values.cni.confDir }}
- --reserved-ports-file=/host/ip_local_reserved_ports
{{- if .Values.nri.enabled }}
- --nri-socket={{ .Values.nri.dir }}/nri.sock
{{- else }}
- --no-nri
{{- end }}
{{- end }}

{{/*
The API server's own address, for what still asks it when the proxy and so the Service `kubernetes` is gone.
*/}}
{{- define "portolan.apiServerEnv" -}}
{{- if .Values.proxy.enabled }}
{{- $url := urlParse .Values.proxy.apiServer -}}
env:
  - name: KUBERNETES_SERVICE_HOST
    value: {{ trimPrefix "[" $url.hostname | trimSuffix "]" | quote }}
  - name: KUBERNETES_SERVICE_PORT
    value: {{ regexFind "[0-9]+$" (regexFind ":[0-9]+$" $url.host) | default (eq $url.scheme "http" | ternary "80" "443") | quote }}
{{- end }}
{{- end }}
