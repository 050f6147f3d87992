# The SDK reaches the service as a proxy for http://localhost:5000.
# The SDK's HTTP library does not verify the certificate of a proxy; identity and broker are verified.
export GLOBUS_SDK_ENVIRONMENT='local'
export GLOBUS_SDK_SERVICE_URL_AUTH='https://compute.example.org/'
export FARCALL_SERVICE_URL='https://compute.example.org'
export http_proxy='https://compute.example.org'
unset HTTP_PROXY NO_PROXY no_proxy
